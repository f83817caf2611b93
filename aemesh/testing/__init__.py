"""What tests are made of: fakes that keep the contract, and the lab of real hosts."""
