-- Idempotency keys whose time is over go, unless they were used again since.
-- KEYS: due Y, then the keys. ARGV: for each, what is due: the time (8 bytes), the text. Gives how many.
for n = 2, #KEYS do
  local promise = call('GET', KEYS[n])
  local over = promise and (#promise < 8 or number8(promise, 1) <= number8(ARGV[n - 1], 1))
  if over then call('UNLINK', KEYS[n]) end
  call('ZREM', KEYS[1], ARGV[n - 1])
end
return #KEYS - 1
