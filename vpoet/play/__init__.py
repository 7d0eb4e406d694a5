"""Plans, inverse dynamics and rewards, in worlds that are real or learned."""
