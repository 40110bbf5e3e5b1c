"""The FRESCO algorithm: arguments in, arrays out. No processes, no settings object."""
