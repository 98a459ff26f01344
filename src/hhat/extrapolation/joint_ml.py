"""`joint-ml`: all symbols of hopping pilots explained by one set of paths, found one by one and fitted together."""
