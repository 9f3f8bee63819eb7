"""The doors through which files go in and out, one module a stage; they never import each other."""
