"""What the configuration says. Pure: the file itself is read by `config_file`."""
