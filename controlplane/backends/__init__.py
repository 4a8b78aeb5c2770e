"""Where jobs run, seen from the control plane. One contract suite runs over every backend."""
