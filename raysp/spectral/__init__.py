"""Pure numerics of functions on masks: arrays in, arrays out."""
