"""One step: what surrounds the update, and the plan by which all of it is one compiled call."""
