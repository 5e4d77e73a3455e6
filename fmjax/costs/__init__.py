"""What a step costs: parameters, bytes, operations, collectives, on which chip."""
