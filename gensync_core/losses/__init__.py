"""Loss terms; each returns unreduced values unless its name or docstring says otherwise."""
