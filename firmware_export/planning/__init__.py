"""Memory planning: what may overlap (blocks), where everything lies (placement, exact), which kernels run (choice)."""
