"""What is asked: campaign files as models, the adapters there are, the plan of trials. Measures nothing."""
