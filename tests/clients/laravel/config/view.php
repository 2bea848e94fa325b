<?php

return ['paths' => [], 'compiled' => getenv('CLIENTS_STORAGE')];
