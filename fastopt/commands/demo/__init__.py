"""The demo: networks and fields that learn with every optimizer, and what a step costs."""
