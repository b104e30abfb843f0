"""The subcommands of ``secateurs``, a module for each kind."""
