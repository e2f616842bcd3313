-- KEYS: message, failed. ARGV: reason, ttl ms.
local dispatched = call('GETRANGE', KEYS[1], 0, 7)
if #dispatched == 8 and number8(dispatched, 1) == 0 then call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
return 0
