"""What is traced: one module a graph, lowered to operators that every runtime has."""
