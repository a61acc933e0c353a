"""MORE-R1: how what is seen relates to what is named, with the reasoning that led there."""
