"""How charts look and are written; a chart is a file with a function that gives an Altair chart."""
