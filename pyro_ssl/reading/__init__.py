"""Reading a user's Pyro model: the only room that touches the user's code and Pyro's internals."""
