-- Routes that an access point still serves and the store may have lost; a later session's is left alone.
-- KEYS: last epoch, then for each: routes. ARGV: node, then for each: field, epoch (8 bytes).
-- Gives for each whether the device is there now.
local last, most, done = tonumber(call('GET', KEYS[1]) or 0), 0, {}
for k = 2, #KEYS do
  local a = (k - 2) * 2 + 2
  local route = call('HGET', KEYS[k], ARGV[a])
  local epoch = number8(ARGV[a + 1], 1)
  if route and number8(route, 1) > epoch then
    -- Of the same node: one that was claimed there and not heard of, or that is about to take the other's place.
    done[k - 1] = string.sub(route, 9) == ARGV[1] and 1 or 0
  else
    call('HSET', KEYS[k], ARGV[a], ARGV[a + 1] .. ARGV[1])
    most = math.max(most, epoch)
    done[k - 1] = 1
  end
end
if most > last then call('SET', KEYS[1], digits(most)) end
return done
