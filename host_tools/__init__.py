"""Images in, answers of the board over a serial link out, every one checked."""
