"""The foundation: random numbers, kernels, modes, copies, and Keras's insides."""
