-- KEYS: apps. ARGV: name, record. Gives whether it was there.
if call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
