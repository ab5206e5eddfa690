"""GPUs: found, chosen, locked, checked, and used through one interface over CUDA and OpenCL."""
