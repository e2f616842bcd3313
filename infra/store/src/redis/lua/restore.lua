-- Routes that an access point still serves and the store may have lost; a later session's is left alone.
-- KEYS: online, last epoch, then for each: routes. ARGV: node, then for each: field, epoch (8 bytes).
-- Gives for each whether it is there now.
local last, most, done = tonumber(call('GET', KEYS[2]) or 0), 0, {}
for k = 3, #KEYS do
  local a = (k - 3) * 2 + 2
  local route = call('HGET', KEYS[k], ARGV[a])
  local epoch = number8(ARGV[a + 1], 1)
  if route and number8(route, 1) > epoch then
    done[k - 2] = 0
  else
    if not route or string.sub(route, 9) ~= ARGV[1] then
      if route then call('HINCRBY', KEYS[1], string.sub(route, 9), -1) end
      call('HINCRBY', KEYS[1], ARGV[1], 1)
    end
    call('HSET', KEYS[k], ARGV[a], ARGV[a + 1] .. ARGV[1])
    most = math.max(most, epoch)
    done[k - 2] = 1
  end
end
if most > last then call('SET', KEYS[2], digits(most)) end
return done
