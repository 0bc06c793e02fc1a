"""Files of anyone's detectors, each format turned into what COCO's files contain."""
