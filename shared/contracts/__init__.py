"""What a contract may say: model, loader with located errors, checks within one contract and across a fleet."""
