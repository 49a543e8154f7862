"""Commands around the recognition: help, what this machine can run, what a bundle holds, engines for this device."""
