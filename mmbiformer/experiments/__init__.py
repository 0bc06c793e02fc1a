"""What is made of whole runs: the quickstart, backbones and attentions compared, result files."""
