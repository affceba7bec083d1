"""The wavenumber bands in which spectral errors are reported."""

BANDS = ("low", "mid", "high")
# In cycles per longest side of the domain: 1 to 3, 4 to 11, 12 and above.
BAND_EDGES = (3.5, 11.5)
# A band with less than this share of the energy holds rounding errors of float32, not signal.
BELOW_ROUNDING = 1e-10
