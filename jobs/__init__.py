"""The login-node side: render, submit, watch and end runs; never imports torch."""
