-- KEYS: for each: message. ARGV: for each: id, head and entry.
-- Gives 0 for each.
local kept, ids, done = {}, {}, {}
for n, message in ipairs(KEYS) do
  kept[n * 2 - 1], kept[n * 2] = message, ARGV[n * 2]
  ids[n * 2 - 1], ids[n * 2] = '0', ARGV[n * 2 - 1]
  done[n] = 0
end
-- One that is there already was appended first, or this is asked a second time.
if call('MSETNX', unpack(kept)) == 0 then
  for n, message in ipairs(KEYS) do call('SET', message, ARGV[n * 2], 'NX') end
end
call('ZADD', beside(KEYS[1], 'M'), unpack(ids))
return done
