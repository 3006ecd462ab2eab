"""What an optimizer is: its hyper-parameters, the options that all have, its rule, and the numbers of each step."""
