-- KEYS: for each: message, messages. ARGV: for each: id, head and entry.
-- Gives 0 for each.
local done = {}
for n = 1, #KEYS / 2 do
  accept(KEYS[n * 2 - 1], KEYS[n * 2], ARGV[n * 2 - 1], ARGV[n * 2])
  done[n] = 0
end
return done
