"""loaderbench: which image data loader should this machine train with?"""
