"""What is made of whole runs: the quickstart, the comparison of backbones, result files."""
