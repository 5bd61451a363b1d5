"""What the product costs: time, memory and bytes, each against a plainer way of doing the same. Run by hand."""
