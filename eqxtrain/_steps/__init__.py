"""The steps of a learner, their contract, and what they are made of."""
