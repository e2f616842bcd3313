-- KEYS: nodes. ARGV: name, boot. Gives whether it was this run that was forgotten.
local known = call('HGET', KEYS[1], ARGV[1])
if not known or number8(known, 1) ~= tonumber(ARGV[2]) then return 0 end
return call('HDEL', KEYS[1], ARGV[1])
