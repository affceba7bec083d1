"""Plain forms of the models: each formula written directly with torch's own layers.

Tests compare outputs and gradients of our implementations with them; benchmarks compare step times and peak memory. So
they are straightforward code, neither tuned nor deliberately slow: fields stay channels first, pointwise maps are
convolutions of one point, contractions are einsums. They support the default options of configs/model, on grids whose
axes are all periodic or all closed. ``with_weights_of`` makes one from an instance of our model, with copies of its
parameters; it raises a ValueError or RuntimeError if the instance has other options.
"""
