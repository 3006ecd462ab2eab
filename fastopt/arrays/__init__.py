"""What users hand over: arrays and containers of them, how they lie in memory, and what is made of them."""
