-- A message that has expired leaves these inboxes; with the last of them its body goes.
-- KEYS: due X, body, inboxes. ARGV: id, whether these are the last.
for n = 3, #KEYS do take_out(KEYS[n], ARGV[1]) end
if ARGV[2] == '1' then
  call('UNLINK', KEYS[2])
  call('ZREM', KEYS[1], ARGV[1])
end
return 0
