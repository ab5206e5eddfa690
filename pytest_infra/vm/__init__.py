"""Virtual machines: kernels, guests, their network cards, and the way to run anything on another kernel."""
