"""What is computed on CPUs in C++: a library that a compiler makes when it is first needed."""
