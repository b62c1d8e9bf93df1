"""PtychoPINN's networks and the physics around them, as `torch.nn.Module`s."""
