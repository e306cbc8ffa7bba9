"""What runs exported graphs: interchangeable parts, one file each."""
