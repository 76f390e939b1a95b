"""The command line: parse, load, call one stage, save."""
