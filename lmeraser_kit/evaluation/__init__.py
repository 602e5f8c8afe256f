"""What unlearning costs, how far it is from retraining, and what attacks find: arrays in, numbers out."""
