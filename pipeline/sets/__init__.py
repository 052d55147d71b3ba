"""What is written: rows, exports, cards and part files of training sets."""
