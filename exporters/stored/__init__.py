"""What an export leaves beside the original members: `exports.json`, opening it again, writing it."""
