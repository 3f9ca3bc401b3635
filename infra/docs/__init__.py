"""What is written anew from the code: the tables of the READMEs."""
